from mg_diffusion.model_card import main


main()
